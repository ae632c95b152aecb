"""What every request passes: authorization, errors, responses, draining."""
