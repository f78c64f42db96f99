"""The embedded AWS: one child process that speaks the AWS wire protocol on loopback.

`LocalAws` (aws.py) starts and stops it, `provision` (provision.py) deploys a SAM template into it. Everybody else
reaches it through `AWS_ENDPOINT_URL` alone.
"""
