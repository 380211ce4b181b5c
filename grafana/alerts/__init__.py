"""Alert rules as data: what is asked, against which limit, and what a person does then (`docs/runbook`)."""
