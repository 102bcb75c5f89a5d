"""From run folders to a ranking with its evidence: leaderboard.md, leaderboard.csv, best_config.yaml."""
