"""A resident's answer (本人開示): their provision records at one agency, with a proof that none in the log is missing.

Given to the adapter of the portal (情報提供等記録開示システム, マイナポータル) or an officer, who pass it on. It can be
checked without the platform (``chukan records verify-resident``) and says itself what it does not show. A record that
the law withholds (不開示, 番号法23条2項) is counted, and nothing of it is told.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from chukan.platform.wire.agency import Addressee
from chukan.platform.wire.evidence import CheckpointView
from chukan.platform.wire.network import Message

PERSONS_MAX = 20


class ResidentAsk(Message, frozen=True):
    """``POST /resident/records``: whose records. A person may have had several numbers; at least one is given."""

    addressees: Annotated[list[Addressee], msgspec.Meta(max_length=PERSONS_MAX)] = msgspec.field(default_factory=list)
    codes: Annotated[
        list[Annotated[bytes, msgspec.Meta(min_length=1, max_length=64, description="符号")]],
        msgspec.Meta(max_length=PERSONS_MAX),
    ] = msgspec.field(default_factory=list)
    """Linkage codes (符号) of this person at this agency, as the portal has them."""
    deny_existence: bool = False
    """存否応答拒否 (個人情報保護法81条): not even how many records are withheld is told; nothing is proven then."""


class ResidentLeaf(Message, frozen=True):
    """One leaf of the person's chain.

    ``data`` is 0x01 ‖ commitment ‖ label ‖ ordinal ‖ hash of the person's leaf before, so that the last leaf's hash
    binds all of them. The commitment is SHA-256(0x02 ‖ salt ‖ record): without its salt it tells nothing.
    """

    data: bytes
    state: Literal["shown", "withheld", "gone"]
    """``withheld``: 不開示. ``gone``: there is no record any more; they are deleted after seven years, leaves never."""
    salt: bytes | None = None
    record: bytes | None = None
    """The record's canonical bytes, UTF-8 JSON."""


class MapEntry(Message, frozen=True):
    """The only label at a place of the map."""

    key: bytes
    value: bytes


class PersonRecords(Message, frozen=True):
    """What one number or code comes to. The label is the agency's own for the person, and the same in each leaf."""

    asked: str
    """JSON path of the number or code in the question; it comes once for each number that was merged into it."""
    known: bool = True
    """Whether there is such a person at this agency; a code that is not known has no label, hence nothing to prove."""
    label: bytes | None = None
    leaves: list[ResidentLeaf] = msgspec.field(default_factory=list)
    siblings: list[bytes] = msgspec.field(default_factory=list)
    """Hashes beside the way from the map's root to the label's place."""
    found: MapEntry | None = None
    """What stands at the label's place: the label itself, another one, or nothing; the last two prove it absent."""
    unproven: list[bytes] = msgspec.field(default_factory=list)
    """Records that are not bound to the checkpoint: written after it, or all of them where nothing is proven."""


class Limit(Message, frozen=True):
    """Something that the answer does not show."""

    name: str
    ja: str
    en: str


class ResidentRecords(Message, frozen=True):
    """The answer. ``shows`` is ``complete`` where, by checkpoint and map, no leaf of the labels is missing."""

    shows: Literal["complete", "nothing"]
    persons: list[PersonRecords]
    cannot_show: list[Limit]
    checkpoint: CheckpointView | None = None


LIMITS = {
    "unwritten": Limit(
        name="unwritten",
        ja="記録されるべき情報提供等が最初から記録されなかったことは、この証明では分かりません。相手方と情報提供ネットワークシステムの記録との照合で分かります。",
        en="That an exchange was never recorded: this shows only against the counterpart's and the network's records.",
    ),
    "label": Limit(
        name="label",
        ja="この回答の識別子が御本人のものであることは、この証明では分かりません。機関の索引鍵を持つ者だけが確かめられます。",
        en="That the label is this person's: only a holder of the agency's index key can compute it.",
    ),
    "relinked": Limit(
        name="relinked",
        ja="符号の付替の前に別の宛名番号で作られた記録は、この回答にありません。機関の職員が付替の履歴から確認します。",
        en="What was recorded under another number before the code was moved (付替): an officer of the agency looks.",
    ),
    "later": Limit(
        name="later",
        ja="チェックポイントより後の記録が全部であることは、この証明では分かりません。",
        en="That nothing is missing which was written after the checkpoint.",
    ),
    "withheld": Limit(
        name="withheld",
        ja="不開示とされた記録が正当に不開示とされたことは、この証明では分かりません。審査請求によって争うことができます。",
        en="That a withheld record is rightly withheld: that is for a request for review (審査請求).",
    ),
    "gone": Limit(
        name="gone",
        ja="保存されていない記録が、保存期間(七年)の満了により消去されたものであることは、この証明では分かりません。",
        en="That a record which is not there any more was deleted because its seven years were over.",
    ),
    "no_map": Limit(
        name="no_map",
        ja="この機関のログには署名された地図がまだないため、記録が全部であることを示せません。",
        en="That no record is missing: the newest checkpoint of this log signs no map of persons yet.",
    ),
    "existence": Limit(
        name="existence",
        ja="機関が存否を明らかにしない取扱いとしたため、記録が全部であることを示していません。",
        en="That no record is missing: the agency does not say whether further records exist (個人情報保護法81条).",
    ),
}
"""What an answer may have to say of itself."""
