"""Who is measured: each module has `reference` and `verdict`, see `bench.drift.measured.Contender`."""
