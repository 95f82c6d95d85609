"""Generated streams of HTTP requests, many of which are hostile."""

import itertools
import random


class Generator:
    """Makes streams of requests, many of which are hostile."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def pieces(self) -> list[bytes]:
        """The stream, as it arrives."""
        requests = [self.request()]
        while self.random.random() < 0.6:
            again = self.random.random() < 0.3
            requests.append(requests[-1] if again else self.request())
        if self.random.random() < 0.4:
            at = self.random.randrange(len(requests))
            requests[at] = self.mutated(requests[at])
        if self.random.random() < 0.4:
            return requests
        stream = b"".join(requests)
        if self.random.random() < 0.02:
            return [stream[at : at + 1] for at in range(len(stream))]
        cuts = sorted(self.random.randrange(len(stream) + 1) for _ in range(self.pick(0, 1, 3, 9)))
        return [stream[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(stream)])]

    def pick(self, *choices: int) -> int:
        return self.random.choice(choices)

    def one(self, usual: str, *others: str, share: float = 0.04) -> str:
        """The usual text, but for a share of all times."""
        return self.random.choice(others) if self.random.random() < share else usual

    def request(self) -> bytes:
        method = self.random.choice(["GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "x-Y!"])
        method = self.one(method, "CONNECT", "G T", "G@T", "", "\u00e9", share=0.02)
        target = self.random.choice(["/", "/act", "/a?b=c", "/%41%2f?%41", "//x/y?", "/a;b?c?d"])
        others = ("http://x/a?b", "HTTP://x:1", "https://x?a", "*", "x:1", "/\u00e9", "/#", "/ a")
        target = self.one(target, *others, "ftp://x/", "http:/x", "")
        version = self.one("HTTP/1.1", "HTTP/1.0", share=0.1)
        wrong = ("HTTP/1.2", "HTTP/0.9", "HTTP/2.0", "HTTP/1.10", "http/1.1", "HTTP/1", "")
        version = self.one(version, *wrong, share=0.02)
        gap = self.one(" ", "\t", "", "\x0b", "\r", share=0.01)
        line = f"{method} {target}{gap}{version}"
        framing, body = self.framing()
        lines = [*self.hosts(), *framing, *self.fields()]
        self.random.shuffle(lines)
        ends = [self.one("\r\n", "\n", "\r", "\r\r\n", share=0.004) for _ in range(len(lines) + 2)]
        head = "".join(itertools.chain(*zip([line, *lines, ""], ends, strict=True)))
        before = self.one("", "\r\n", "\r\n\r\n", "\n", "\r", " ", "\r\n \r\n", share=0.06)
        return (before + head).encode("latin-1") + body

    def hosts(self) -> list[str]:
        host = self.one("x", "x:80", "[::1]:1", "", "1.2.3.4", "a..b", "a b", "x:y", "@", share=0.1)
        return [f"Host: {host}"] * (1 if self.random.random() < 0.97 else self.pick(0, 2))

    def framing(self) -> tuple[list[str], bytes]:
        """Fields that tell where the body ends, and a body that may end there."""
        body = self.random.choice(
            [b"", b"hello", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]
        )
        kind = self.random.random()
        if kind < 0.3:
            return [], b""
        if kind < 0.6:
            return [f"Content-Length: {len(body)}"], body
        if kind < 0.9:
            coding = self.random.choice(["chunked", "chunked", "Chunked", "\tchunked "])
            return [f"Transfer-Encoding: {coding}"], self.chunks(body)
        size = str(len(body))
        lengths = [
            *(size, f"+{size}", f"-{size}", f"0{size}", f"{size}, {size}", f"{size},9", f"{size} "),
            *(
                "",
                "x",
                "0x5",
                "\u00b2",
                "1_0",
                "1 0",
                "9" * 30,
                f"{size};a",
                f"{size}\x0b",
                f"\t{size}",
            ),
        ]
        codings = [
            *(
                "chunked",
                "identity",
                "gzip, chunked",
                "chunked, chunked",
                "chunked;a=b",
                "xchunked",
            ),
            *(
                "chunked,",
                ",chunked",
                "",
                "\x0bchunked",
                "chunked\x0c",
                '"chunked"',
                "chunked, identity",
            ),
        ]
        names = ["Content-Length", "Transfer-Encoding"]
        fields = []
        for _ in range(self.pick(1, 1, 2, 3)):
            name = self.random.choice(names)
            value = self.random.choice(lengths if name == names[0] else codings)
            name = self.one(name, f"{name} ", f" {name}", name.lower(), name.replace("-", "_"))
            fields.append(f"{name}: {value}")
        return fields, self.random.choice([body, self.chunks(body)])

    def chunks(self, body: bytes) -> bytes:
        chunks = []
        while body:
            size = self.random.randint(1, len(body))
            chunks.append((f"{size:x}", body[:size]))
            body = body[size:]
        lines = []
        for digits, chunk in chunks:
            # With more than 20 digits h11 refuses any number of zeros.
            others = (f"0{digits}", f"{'0' * 15}{digits}", f"+{digits}", f" {digits}", f"{digits} ")
            digits = self.one(digits, *others, f"0x{digits}", f"{digits}\t", share=0.1)
            huge = ("", "f" * 16, "1" + "0" * 16, "fffffff", "g", "1_0", "-1")
            lines.append(
                f"{self.one(digits, *huge, share=0.02)}{self.extension()}".encode("latin-1")
            )
            lines.append(self.one("\r\n", "\n", "\r", share=0.02).encode() + chunk)
            lines.append(self.one("\r\n", "\n", "", "\r\n\r\n", "x\r\n", share=0.03).encode())
        end = f"{self.one('0', '00', '0' * 17, '-0', '0 ', '', share=0.06)}{self.extension()}\r\n"
        trailers = (
            *(
                "A: b\r\n",
                "A: b\r\nC: d\r\n",
                "Content-Length: 5\r\n",
                "A\r\n",
                "A : b\r\n",
                " A: b\r\n",
            ),
            *("Transfer-Encoding: x\r\n", "A: b\n", "A: b\r\n c\r\n", "GET / HTTP/1.1\r\n"),
        )
        end += self.one("", *trailers, share=0.15) + self.one("\r\n", "\n", "", share=0.03)
        return b"".join(lines) + end.encode("latin-1")

    def extension(self) -> str:
        return self.one(
            "", ";a", ';a="b"', "; a = b", ";", ";\u00e9", ";a\nb", ";a\rb", ";\0", share=0.1
        )

    def fields(self) -> list[str]:
        connection = self.random.choice(
            ["keep-alive", "close", "Keep-Alive, Close", "x, close", "upgrade", "closed", ""]
        )
        good = (
            f"Connection: {connection}",
            f"Connection: {connection}\r\nConnection: keep-alive",
            "Upgrade: websocket\r\nConnection: Upgrade",
            "Upgrade: h2c",
            "Expect: 100-continue",
            "A: \u00e9",
            "A:",
            "Content-Type: application/json",
            "Keep-Alive: 5",
            "Content_Length: 9",
        )
        bad = (
            *("Expect: x", "A: b\r\n c", "A: b\r\n\tContent-Length: 3", "A: \x7f", "A: b\0c"),
            *("A: b\rc", "\u00e9: b", "A B: c", "A\t: c", "A", ":", '"A": b', "A: b\n"),
        )
        return [
            self.one(self.random.choice(good), *bad, share=0.1)
            for _ in range(self.pick(0, 0, 0, 0, 1, 1, 2))
        ]

    def mutated(self, request: bytes) -> bytes:
        at = self.random.randrange(len(request) + 1)
        inserted = self.random.choice(
            [
                b"",
                b"\r",
                b"\n",
                b"\r\n",
                b" ",
                b"\t",
                b"\0",
                b":",
                b";",
                b",",
                b"0",
                b"-",
                b"\x80",
                b"x",
            ]
        )
        return request[:at] + inserted + request[at + self.pick(0, 1, 1, 2) :]
