"""`docs/recipe.md` and `docs/corpus-recipe.md` are what the schemas say. To write it anew: python -m tests.recipe.test_recipe_reference"""

from pathlib import Path

from etude.catalog import TABLES
from etude.recipe.reference import corpus_reference, reference

CORPUS = Path(__file__).parents[2] / "docs" / "corpus-recipe.md"
PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"
COMMAND = "python -m tests.recipe.test_recipe_reference"


def test_the_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(TABLES), f"docs/recipe.md is out of date; write it anew with: {COMMAND}"
    assert CORPUS.read_text(encoding="utf-8") == corpus_reference(TABLES), f"docs/corpus-recipe.md is out of date; write it anew: {COMMAND}"


def test_every_leaf_and_every_option_is_explained() -> None:
    page = reference(TABLES) + corpus_reference(TABLES)
    for table in ("adaptation", "objective", "schedule", "optimizer", "metric", "tracker", "rule"):
        for name in TABLES[table]:
            assert f"### {table}: {name}\n" in page
    unexplained = [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert unexplained == []
    assert "anything" not in [cell.strip() for line in page.splitlines() for cell in line.split("|")]


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(reference(TABLES), encoding="utf-8")
    CORPUS.write_text(corpus_reference(TABLES), encoding="utf-8")
