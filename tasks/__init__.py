"""What is done: one capability a folder, its pure rules, its engine, its Prefect tasks."""
