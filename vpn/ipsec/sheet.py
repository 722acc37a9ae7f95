"""What the engineer of a body's IPsec device is handed: a sheet of all parameters, and the same for strongSwan.

An appliance makes no request and opens no sealed file; somebody types what is on the sheet into it. So the sheet holds
the link's pre-shared keys in the clear, for one body, once: it is made at the approval, written into a private file,
and handed over as a key is (by hand, or sealed). Nothing here keeps or logs it.

Invariant: what the sheet says is what the gateway is given, from the same constants.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from chukan.tenants.link_plan import prefixes
from chukan.vpn.ipsec.model import (
    DPD_S,
    ESP_PROPOSALS,
    ESP_REKEY_S,
    IKE_PROPOSALS,
    IKE_REKEY_S,
    Wanted,
    ike_secret,
    local_id,
    remote_id,
    selectors,
)

Services = Mapping[str, Iterable[str]]

_HEAD: Final = """\
回線 {link} の IPsec 設定表 / IPsec parameters of link {link}

この表には事前共有鍵があります。設定後は施錠保管するか廃棄してください。
This sheet holds pre-shared keys. Lock it away or destroy it once they are set.

拠点ごとに一本、合計 {count} 本のトンネルを設定してください。値は拠点ごとに異なります。
Set up one tunnel for each centre, {count} in all. The values differ from centre to centre.
"""
_CENTRE: Final = """
== {centre} ==
接続先 / gateway                        {address} (UDP 500, 4500)
IKE                                     IKEv2, 装置から接続 / the device initiates
自局 ID / own identity (FQDN)           {remote_id}
相手 ID / peer identity (FQDN)          {local_id}
事前共有鍵 / pre-shared key (ASCII)     {secret}
自側の範囲 / own selectors              {remote}
相手側の範囲 / peer selectors           {local}
"""
_TAIL: Final = """
== 共通 / common ==
IKE 暗号 / IKE proposals                {ike}
  (AES-256-GCM または / or AES-256-CBC + HMAC-SHA-384, PRF SHA-384, DH group 20)
ESP 暗号 / ESP proposal                 {esp}
  (AES-256-GCM, 16-byte ICV, PFS group 20)
鍵更新 / rekeying                       IKE {ike_s} s, ESP {esp_s} s
DPD / dead peer detection               {dpd_s} s
NAT                                     NAT-T (UDP 4500) 可 / allowed
MTU                                     1380, TCP MSS 1340

自側の IPv4 アドレス {v4} を装置内側(または通信する機器)に設定し、この送信元で通信してください。
Give the inner side of the device, or the host that talks, the IPv4 address {v4}; nothing else may be the source.
"""
_SWANCTL: Final = """\
connections {{
{connections}}}
secrets {{
{secrets}}}
"""
_CONNECTION: Final = """\
  {centre} {{
    version = 2
    local_addrs = %any
    remote_addrs = {address}
    proposals = {ike}
    rekey_time = {ike_s}s
    reauth_time = 0s
    dpd_delay = {dpd_s}s
    keyingtries = 0
    local {{
      auth = psk
      id = {remote_id}
    }}
    remote {{
      auth = psk
      id = {local_id}
    }}
    children {{
      {centre} {{
        local_ts = {remote}
        remote_ts = {local}
        esp_proposals = {esp}
        rekey_time = {esp_s}s
        start_action = start
        dpd_action = restart
        close_action = start
      }}
    }}
  }}
"""
_KEY: Final = """\
  ike-{centre} {{
    id-1 = {remote_id}
    id-2 = {local_id}
    secret = "{secret}"
  }}
"""


def ipsec_sheet(link: str, centres: Mapping[str, str], psks: Mapping[str, bytes], services: Services) -> str:
    """Return the sheet, in Japanese and English.

    Args:
        link: the link's name, ``131016-1``.
        centres: each centre's outer address, with or without a port.
        psks: each centre's pre-shared key as it is sealed for the gateway (32 octets).
        services: what the device reaches through each centre's tunnel: that centre's own address, and the shared one.

    Raises:
        KeyError: a centre without a key or without services.
        ValueError: no link, or no prefixes.
    """
    rows = _rows(link, centres, psks, services)
    head = _HEAD.format(link=link, count=len(rows))
    v4, _, _ = prefixes(link)[0].partition("/")
    return head + "".join(_CENTRE.format(**row) for row in rows) + _TAIL.format(v4=v4, **_COMMON)


def swanctl_conf(link: str, centres: Mapping[str, str], psks: Mapping[str, bytes], services: Services) -> str:
    """Return ``swanctl.conf`` for a device that runs strongSwan 5.9 or later; arguments and errors as of the sheet."""
    rows = _rows(link, centres, psks, services)
    return _SWANCTL.format(
        connections="".join(_CONNECTION.format(**row, **_COMMON) for row in rows),
        secrets="".join(_KEY.format(**row) for row in rows),
    )


_COMMON: Final[Mapping[str, object]] = {
    "ike": ", ".join(IKE_PROPOSALS),
    "esp": ", ".join(ESP_PROPOSALS),
    "ike_s": IKE_REKEY_S,
    "esp_s": ESP_REKEY_S,
    "dpd_s": DPD_S,
}


def _rows(link: str, centres: Mapping[str, str], psks: Mapping[str, bytes], services: Services) -> list[dict[str, str]]:
    rows = []
    for centre, endpoint in sorted(centres.items()):
        local, remote = selectors(prefixes(link), services[centre])
        wanted = Wanted(link=link, centre=centre, auth="psk", secret=psks[centre], local=local, remote=remote)
        rows.append(
            {
                "centre": centre,
                "address": _host(endpoint),
                "local_id": local_id(centre),
                "remote_id": remote_id(wanted),
                "secret": ike_secret(psks[centre]).decode("ascii"),
                "local": ", ".join(sorted(local)),
                "remote": ", ".join(sorted(remote)),
            }
        )
    return rows


def _host(endpoint: str) -> str:
    """Return an endpoint's address: ``192.0.2.1:51820``, ``[2001:db8::1]:51820`` or the address alone."""
    if endpoint.startswith("["):
        return endpoint[1:].partition("]")[0]
    return endpoint.partition(":")[0] if endpoint.count(":") == 1 else endpoint
