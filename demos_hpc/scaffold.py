"""A folder to begin with: a model that builds, serves and is right, to be replaced by one's own."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from .errors import InvalidInput

#: Languages, the ending of their source, and the templates that a folder has beside those of all languages.
LANGUAGES = {
    "c": ("c", ("compiled", "c")),
    "cpp": ("cpp", ("compiled", "cpp")),
    "fortran": ("f90", ("compiled", "fortran")),
    "python": ("py", ("python",)),
}
#: A name that is one in all languages.
NAME = r"[A-Za-z][A-Za-z0-9_]{0,50}"
#: Names that a compiler, make or Python would take for something else, in capitals or not.
TAKEN = (
    *("server", "analysis", "demos", "demos_hpc", "main", "check", "clean", "makefile", "gnumakefile"),
    *("double", "function", "import", "class"),
)
#: Words of the templates, which a name may have as well: they are replaced at once, not one after the other.
WORDS = re.compile("NAME|SUFFIX")


def make_files(language: str, name: str) -> dict[str, str]:
    """Names and texts of a new model's files.

    Raises
    ------
    InvalidInput
        Where there is no such language, or the name is none in it.
    """
    if language not in LANGUAGES:
        raise InvalidInput(f"language {language!r}; it is one of {', '.join(LANGUAGES)}")
    if not re.fullmatch(NAME, name) or name.lower() in TAKEN:
        raise InvalidInput(
            f"{name!r} is no name for a model in {language}: it has letters, digits and '_', a letter first, at most 51"
            f" of them, and is none of {', '.join(TAKEN)}"
        )
    suffix, directories = LANGUAGES[language]
    meant = {"NAME": name, "SUFFIX": suffix}

    def fill(text: str) -> str:
        return WORDS.sub(lambda found: meant[found.group()], text)

    found = {}
    for directory in ("all", *directories):
        for template in sorted((files("demos_hpc") / "templates" / directory).iterdir(), key=lambda path: path.name):
            found[fill(template.name.removesuffix(".in"))] = fill(template.read_text(encoding="utf-8"))
    return found


def make_folder(language: str, name: str, folder: Path) -> list[Path]:
    """Writes a new model into a folder that is not there yet; its files.

    Raises
    ------
    InvalidInput
        As `make_files`, and where the folder exists or cannot be made.
    """
    texts = make_files(language, name)
    try:
        folder.mkdir(parents=True)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise InvalidInput(f"{folder} exists already; choose another name, or another place by --folder") from None
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be made: {error.strerror}") from None
    return [folder / file for file in texts]
