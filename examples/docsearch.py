"""Search Python's own manual: an inverted index in shards that live in workers.

Mappers read the topics that ``help()`` knows, cut them into words and push the counts
to the index shards, from worker to worker: the head never sees a word. The shards stay
warm, a question goes to all of them at once, and BM25 ranks the topics.

    python examples/docsearch.py --workers 2 --ask "what does a lambda do"
"""

import argparse
import math
import re
import sys
import textwrap
import time
import zlib
from collections import Counter, defaultdict
from pydoc_data.topics import topics

import mosaic_like as mosaic

QUESTION = "when is the else clause of a loop executed"
K1, B = 1.2, 0.75  # of BM25: how soon a word has said enough, what long texts pay


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z_]\w*", text.lower())


@mosaic.tessera
class Shard:
    """The words whose checksum leads here, and how often each topic has them."""

    def __init__(self) -> None:
        self.index: dict[str, dict[str, int]] = defaultdict(dict)

    def add(self, topic: str, counts: dict[str, int]) -> None:
        for word, count in counts.items():
            self.index[word][topic] = count

    def totals(self) -> Counter[str]:
        return Counter({word: sum(n.values()) for word, n in self.index.items()})

    def scores(self, question: list[str], sizes: dict[str, int]) -> dict[str, float]:
        scores: dict[str, float] = defaultdict(float)
        mean = sum(sizes.values()) / len(sizes)
        for word in question:
            found = self.index.get(word, {})
            rarity = math.log(1 + (len(sizes) - len(found) + 0.5) / (len(found) + 0.5))
            for topic, n in found.items():
                damped = n + K1 * (1 - B + B * sizes[topic] / mean)
                scores[topic] += rarity * n * (K1 + 1) / damped
        return scores


@mosaic.tessera
class Mapper:
    """Reads its share of the manual, sends each word to the shard that has it."""

    def __init__(self, shards: list[mosaic.TesseraProxy[Shard]]) -> None:
        self.shards = shards  # proxies travel: this object calls the shards itself

    async def read(self, names: list[str]) -> dict[str, int]:
        """Push the words of these topics; give how many each has."""
        sizes, pushes = {}, []
        for topic in names:
            parts: list[Counter[str]] = [Counter() for _ in self.shards]
            for word in words_of(topics[topic]):
                parts[zlib.crc32(word.encode()) % len(parts)][word] += 1
            sizes[topic] = sum(part.total() for part in parts)
            for shard, part in zip(self.shards, parts, strict=True):
                pushes.append(shard.add(topic, part))  # is sent, and we go on
        await mosaic.gather(pushes)  # now wait for all of them
        return sizes


def snippet(topic: str, question: list[str]) -> str:
    """The paragraph with most of the words that were asked for, without markup."""
    paragraphs = re.sub(r"[*`]|::", "", topics[topic]).split("\n\n")
    best = max(paragraphs, key=lambda text: len(set(question) & set(words_of(text))))
    return textwrap.indent(textwrap.fill(textwrap.shorten(best, 320), 72), "    ")


async def search(n: int, asked: str, began: float) -> Counter[str]:
    """Build the index, answer the question; give the words that were counted."""
    shards = [Shard.remote() for _ in range(n)]
    mappers = [Mapper.remote(shards) for _ in range(n)]
    ready, names, question = time.perf_counter(), sorted(topics), words_of(asked)
    shares = await mosaic.gather(m.read(names[i::n]) for i, m in enumerate(mappers))
    sizes = {topic: size for share in shares for topic, size in share.items()}
    built, ranking = time.perf_counter(), defaultdict[str, float](float)
    for part in await mosaic.gather(shard.scores(question, sizes) for shard in shards):
        for topic in part:
            ranking[topic] += part[topic]
    done = time.perf_counter()
    totals = sum(await mosaic.gather(s.totals() for s in shards), Counter[str]())
    common = ", ".join(f"{word} {count:,}" for word, count in totals.most_common(4))
    print(f"{ready - began:7.3f} s  {n} workers started, {n} mappers, {n} shards")
    print(f"{built - ready:7.3f} s  {len(names)} topics of Python's manual indexed:")
    print(f"{'':11}{totals.total():,} words, {len(totals):,} different: {common}")
    print(f"{done - built:7.3f} s  all shards asked:\n\n? {asked}\n")
    ranked = sorted(ranking, key=lambda topic: -ranking[topic])[:5]
    for topic in ranked:
        print(f"{ranking[topic]:7.2f}  {'=' * round(2 * ranking[topic])} {topic}")
    print(f"\n{snippet(ranked[0], question)}" if ranked else "nothing found")
    return totals


parser = argparse.ArgumentParser(description="Search Python's own manual.")
parser.add_argument("--workers", type=int, default=2, metavar="N")
parser.add_argument("--ask", default=QUESTION, metavar="TEXT")
parser.add_argument("--check", action="store_true", help="exit 1 if it counted wrong")
args, start = parser.parse_args(), time.perf_counter()
n = args.workers
totals = mosaic.run(lambda: search(n, args.ask, start), num_workers=n)
if args.check:
    single = Counter(word for text in topics.values() for word in words_of(text))
    print("\ncheck:", "equal to" if totals == single else "NOT", "Counter's counts")
    sys.exit(totals != single)
