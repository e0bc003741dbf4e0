"""What a row asks and answers, and how answers are scored."""
