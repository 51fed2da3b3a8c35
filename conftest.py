"""How many random inputs a property is given, by `--hypothesis-profile`: default, deep, or mutants (in mutation testing)."""

from hypothesis import Phase, settings

settings.register_profile("default", max_examples=25, derandomize=True, deadline=None, database=None)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
settings.register_profile("mutants", settings.get_profile("default"), phases=[Phase.generate])  # a failure need not be made small
settings.load_profile("default")
