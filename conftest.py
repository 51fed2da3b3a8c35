"""How many random inputs a property gets, by `--hypothesis-profile`: default, deep, or mutants."""

from hypothesis import Phase, settings

settings.register_profile("default", max_examples=25, derandomize=True, deadline=None, database=None)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
# In mutation testing a failure need not be made small.
settings.register_profile("mutants", settings.get_profile("default"), phases=[Phase.generate])
settings.load_profile("default")
