"""Looking inside a model: its tree, a drawing of it, what it attends to, which experts it picks, which tokens lie close."""
