"""The sentences that a scenario may use: a small fixed vocabulary, each with what it does, in English and Japanese.

A scenario is written in the English form; ``chukan drill list`` and the report show both. A sentence that is not here
is refused with the nearest one, for a step that was misunderstood must not be found out in the middle of a drill.

Pure: nothing here touches an installation (``hands`` does).
"""

import difflib
import re
from typing import Final, NamedTuple

import msgspec

from chukan.errors import Problem

_WORDS: Final = {
    "centre": "(?P<centre>east|west|witness)",
    "other": "(?P<other>east|west)",
    "cell": "(?P<cell>[a-z][a-z0-9-]{0,15})",
    "process": "(?P<process>(?:etcd|exchange)-[a-z]+|network)",
    "n": r"(?P<n>[0-9]{1,3}(?:\.[0-9])?)",
}
_JA: Final = {"east": "東", "west": "西", "witness": "証人"}


class Sentence(NamedTuple):
    """One sentence; ``needs`` names what not every installation offers."""

    verb: str
    en: str
    ja: str
    needs: str = ""


GIVEN: Final = (
    Sentence("settled", "the site is settled", "全セルが定常状態にある"),
    Sentence("at_home", "every leader is at home", "全セルの主系が本拠の拠点にある"),
    Sentence("warm", "clients have worked for {n} s", "利用者が {n} 秒間通常どおり利用している"),
)
WHEN: Final = (
    Sentence("switchover_away", "switch cell {cell} over to the other centre", "セル{cell}を相手拠点へ計画切替する"),
    Sentence("switchover_home", "switch cell {cell} back home", "セル{cell}を本拠の拠点へ切り戻す"),
    Sentence("kill_postgres", "kill the primary's postgres in cell {cell}", "セル{cell}の主系PostgreSQLを強制終了する"),
    Sentence("kill_node", "kill the primary's node in cell {cell}", "セル{cell}の主系ノードを丸ごと強制終了する"),
    Sentence("freeze_node", "freeze the primary's node in cell {cell}", "セル{cell}の主系ノードを凍結する"),
    Sentence(
        "freeze_patroni", "freeze Patroni alone on the primary of cell {cell}",
        "セル{cell}の主系のPatroniだけを凍結する",
    ),
    Sentence("kill", "kill {process}", "{process}を強制終了する"),
    Sentence("freeze", "freeze {process}", "{process}を凍結する"),
    Sentence("thaw_all", "thaw what is frozen", "凍結を解く"),
    Sentence("start_all", "start again what was killed", "終了させたものを再起動する"),
    Sentence("drain", "drain {process}", "{process}を計画停止する(利用者を逃がしてから止める)"),
    Sentence("lose_centre", "lose the centre {centre}", "拠点({centre})を丸ごと失う"),
    Sentence("return_centre", "return the centre {centre}", "拠点({centre})を復旧する"),
    Sentence("cut", "cut the link between {centre} and {other}", "{centre}・{other}拠点間の回線を切る", "namespaces"),
    Sentence("mend", "mend the link between {centre} and {other}", "{centre}・{other}拠点間の回線を戻す", "namespaces"),
    Sentence(
        "isolate", "isolate the centre {centre} from everybody",
        "拠点({centre})を全通信から切り離す", "namespaces",
    ),
    Sentence("rejoin", "let the centre {centre} rejoin", "拠点({centre})を通信に戻す", "namespaces"),
    Sentence("fence", "say that the primary of cell {cell} is dead", "セル{cell}の主系が停止したと運用者が宣言する"),
    Sentence(
        "fill_disk", "fill the disk of the primary of cell {cell}",
        "セル{cell}の主系のディスクを満杯にする", "small disks",
    ),
    Sentence("free_disk", "free the disk", "ディスクを空ける", "small disks"),
    Sentence(
        "restart", "restart {process} in good order",
        "{process}を順序よく再起動する(利用者を逃がしてから止め、すぐ起動する)",
    ),
    Sentence(
        "restart_nodes", "restart the nodes of cell {cell} one by one, within {n} s",
        "セル{cell}のノードを1台ずつ再起動する(主系は計画切替のあと、{n} 秒以内)",
    ),
    Sentence(
        "move_away", "move an agency of home {cell} to cell {other}",
        "本拠{cell}の機関をセル{other}へ移動する", "agency moves",
    ),
    Sentence("move_home", "move that agency back home", "その機関を本拠のセルへ戻す", "agency moves"),
    Sentence("work", "let clients work for {n} s", "利用者に {n} 秒間利用させる"),
    Sentence(
        "another_leader", "wait at most {n} s until cell {cell} has another leader",
        "セル{cell}の主系が替わるまで待つ(最長 {n} 秒)",
    ),
    Sentence(
        "away", "wait at most {n} s until cell {cell} is led from the other centre",
        "セル{cell}の主系が相手拠点に移るまで待つ(最長 {n} 秒)",
    ),
    Sentence(
        "served", "wait at most {n} s until clients of home {cell} are served",
        "本拠{cell}の利用者が再び利用できるまで待つ(最長 {n} 秒)",
    ),
    Sentence("settle", "wait at most {n} s until the site is settled", "定常状態に戻るまで待つ(最長 {n} 秒)"),
    Sentence(
        "sequenced", "wait at most {n} s until new records get their place",
        "新しい提供等記録に番号が付くまで待つ(最長 {n} 秒)",
    ),
    Sentence("back_up", "take a backup of cell {cell}", "セル{cell}のバックアップを取る", "backup"),
    Sentence("keep_moment", "remember this moment", "この時点を控える", "backup"),
    Sentence("restore", "restore cell {cell} to that moment", "セル{cell}を控えた時点に復元する", "backup"),
    Sentence(
        "reopen", "reconcile cell {cell} with the network and open it",
        "セル{cell}をネットワークと突き合わせて開く", "backup",
    ),
    Sentence(
        "lose_gateway", "lose the gateway of the centre {centre}",
        "拠点({centre})のVPNゲートウェイを失う", "links",
    ),
    Sentence(
        "return_gateway", "return the gateway of the centre {centre}",
        "拠点({centre})のVPNゲートウェイを戻す", "links",
    ),
    Sentence(
        "rotate_keys", "rotate the data keys of the drill's agencies",
        "訓練対象機関のデータ鍵を更新する", "key rotation",
    ),
    Sentence(
        "reencrypt_rows", "seal the rows of the drill's agencies anew",
        "訓練対象機関の行を新しい鍵で封緘し直す", "key rotation",
    ),
)  # fmt: skip
THEN: Final = (
    Sentence("no_failures", "no request fails", "失敗した要求が1件もない"),
    Sentence(
        "taken_back", "what was acknowledged after the moment is not in the cell",
        "控えた時点より後に受け付けたものは、復元したセルにない(意図どおり)", "backup",
    ),
    Sentence(
        "listed", "the reconciliation lists it", "それはネットワークとの突合の一覧に載っている", "backup",
    ),
    Sentence(
        "replay_refused", "permits of before the opening are refused, and those in their place answered",
        "開く前の提供許可証は拒否され、代わりの許可証に回答がある", "backup",
    ),
    Sentence(
        "no_failures_before_nodes", "no request fails until a node is restarted",
        "ノードの再起動を始めるまで、失敗した要求が1件もない",
    ),
    Sentence(
        "only_moving_refused", "only the agency that moves is refused, and told when to come back",
        "拒否されるのは移動中の機関だけで、毎回、再試行までの秒数が示される",
    ),
    Sentence("roles_stay", "no cell changes its leader", "どのセルの主系も替わらない"),
)  # fmt: skip
ALWAYS: Final = (
    Sentence("found", "everything acknowledged is found", "受け付けたものはすべて存在する"),
    Sentence("outcomes", "every query has exactly one outcome", "照会ごとに結果はただ一つである"),
    Sentence("records", "each side has exactly one record", "各当事者の記録はそれぞれ1件である"),
    Sentence("writers", "never two writers acknowledge", "二つの主系が同時に受け付けたことはない"),
    Sentence("answers", "every answer equals the copy registered", "回答は登録された副本と一致する"),
)
"""What must hold after every drill, whatever its file says."""


class Step(msgspec.Struct, frozen=True):
    """One sentence of a scenario, understood."""

    verb: str
    en: str
    ja: str
    words: dict[str, str] = {}
    needs: str = ""

    @property
    def limit_s(self) -> float:
        """The seconds that the sentence names; 0 where it names none."""
        return float(self.words.get("n", 0))


def understand(text: str, sentences: tuple[Sentence, ...], pointer: str) -> Step:
    """Return the step that a sentence stands for. Raises ``Problem`` setting_unknown with the nearest sentence."""
    plain = " ".join(text.split())
    for sentence in sentences:
        found = re.fullmatch(_pattern(sentence.en), plain)
        if found is not None:
            words = found.groupdict()
            said = {name: _JA.get(word, word) for name, word in words.items()}
            return Step(sentence.verb, plain, sentence.ja.format(**said), words, sentence.needs)
    nearest = difflib.get_close_matches(plain, [sentence.en for sentence in sentences], n=1, cutoff=0.3)
    raise Problem("setting_unknown", pointer=pointer, expected=nearest[0] if nearest else sentences[0].en)


def _pattern(template: str) -> str:
    parts = re.split(r"\{(\w+)\}", template)
    return "".join(_WORDS[part] if place % 2 else re.escape(part) for place, part in enumerate(parts))
