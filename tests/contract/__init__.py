"""The contract: pairs of programs by uses; each cell a trusted value, or an asserted refusal."""
