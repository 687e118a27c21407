"""How fast the parts are beside what else one would take: contenders in turns, each held against its plain twin first."""
