"""The agent's rules, pure: the life of a job, the owner's policy, what is admitted."""
