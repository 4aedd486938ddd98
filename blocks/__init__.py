"""What it connects to: settings, secrets, clients; no decisions.

`blocks.settings` holds the models, read from YAML, options or a Prefect block alike; they import no Prefect.
The blocks themselves are the same models registered with Prefect (`blocks.registered`).
"""
