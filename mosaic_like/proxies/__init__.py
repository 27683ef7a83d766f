"""What the user holds: proxies of tesserae and of tasks."""
