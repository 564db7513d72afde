"""The equations: losses, walk and transport, as functions of tensors."""
