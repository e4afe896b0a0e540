"""How fast batchcls is, against what, and how close to the limit; run from a checkout, never installed."""
