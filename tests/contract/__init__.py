"""What a client may rely on in the Kubernetes API, asked of the sandbox and of a real control plane alike.

Where the two differ, the sandbox is wrong.  The suite shares no code with the product and none with the sandbox.
"""
