"""Put questions to models, mark the answers and measure how well text is predicted."""
