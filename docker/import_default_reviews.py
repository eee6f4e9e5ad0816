"""Import the default reviews of `ubert demo`: downloaded, or synthetic when offline.

Arguments: the folder for a synthetic corpus, then further arguments for `ubert import`.
"""

import os
import sys
from pathlib import Path

from ubert_training.demo import choose_reviews

folder, *arguments = sys.argv[1:]
source = choose_reviews(given=None, item_domains=None, directory=Path(folder), seed=0)
print(source.description, flush=True)
if source.item_domains is not None:
    arguments += ["--item-domains", str(source.item_domains)]
os.execvp("ubert", ["ubert", "import", *map(str, source.files), *arguments])
