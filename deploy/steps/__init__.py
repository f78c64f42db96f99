"""The steps of the state machine: one module a Lambda function, the logic in plain functions, the handler thin."""
