"""The local deployment: Dagster's own processes on this machine, driven through GraphQL as the UI drives them."""
