import mosaic_like as mosaic


@mosaic.tessera
class Counter:
    def __init__(self, start=0):
        self.n = start

    def add(self, k):
        self.n += k
        return self.n


async def main(runtime):
    counter = Counter.remote(10)  # lives in a worker; this returns at once
    print(await counter.add(5).result())
    print(await mosaic.gather(counter.add(i) for i in range(3)))


mosaic.run(main, num_workers=2)
