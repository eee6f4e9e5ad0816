"""A word piece tokenizer of some three hundred pieces, made without a download; real in all but its size."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from ubert_model.tokenizer import ReviewTokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

COMMON_WORDS = """
a about after again all also always an and any are as at back be because been before big black board both box bought
but buy by cable came can case cheap color come could day days did do does done down each easy end even ever every
expected far few find first fit five for from get gift give go got guitar had half hand hard has have he her here him
his home hour house how i if in into is it item its just keep kind know last less light like little long look looks
made make many me money month more most much music my need never new next no not now of off old on one only or order
other our out over own paid part phone pick picture piece plastic play player plays price product put quality quick
quite read really right same say screen see seems sent set she should since size small so some sound sounds still
store string strings such than that the their them then there these they thing think this those time to too toy two
under up us use used very video want was way we week well were what when where which while who why will with without
word work works would year years yes you your
"""

OPINION_WORDS = """
amazing awful bad beautiful best better boring broken cheaply clean clear comfortable crisp defective
disappointed disappointing durable enjoy excellent fantastic fast favorite fine flawless flimsy fun good great happy
hate horrible impressed loud love loved nice noisy perfect perfectly poor poorly recommend reliable sad slow smooth
sturdy terrible ugly useless waste wonderful worse worst worth wrong
"""

PUNCTUATION = ". , ! ? ' - : ; ( )"
ENDINGS = "##s ##ed ##ing ##ly ##er ##est ##ful ##y ##n ##t"


def tiny_tokenizer_json() -> str:
    """Content of a ``tokenizer.json`` like a BERT checkpoint's: lower case, [PAD] = 0, text between [CLS] and [SEP]."""
    pieces = [*SPECIAL_TOKENS, *" ".join((PUNCTUATION, ENDINGS, COMMON_WORDS, OPINION_WORDS)).split()]
    vocabulary = {piece: row for row, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer.to_str()


class CountingTokenizer(ReviewTokenizer):
    """Records in ``batch_sizes`` how many texts each call has."""

    def __init__(self, max_length: int) -> None:
        super().__init__(tiny_tokenizer_json(), max_length)
        self.batch_sizes: list[int] = []

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        self.batch_sizes.append(len(texts))
        return super().encode(texts)
