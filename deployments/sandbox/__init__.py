"""An Apinizer installation without a cluster: a Kubernetes API over real HTTP and a real database, on loopback.

It shares no code with the product: a simulator that shared the rules would share their mistakes.
`deployments.sandbox.launch.Sandbox` starts it; `python -m deployments.sandbox` runs it in the foreground.
"""
