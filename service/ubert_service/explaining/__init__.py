"""Why a pair is rated as it is."""
