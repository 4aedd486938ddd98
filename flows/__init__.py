"""In what order: one flow a module, each reads like the runbook."""
