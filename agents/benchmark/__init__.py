"""The benchmark: what is run (`suites`), running it (`run`, `pool`), its results on disk (`results`, `rows`),
what they say (`analyse`, `summary`, `words`) and how that is shown (`plots`, `report`)."""
