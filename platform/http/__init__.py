"""The exchange's HTTP listeners: agencies on one side, the information-provision network on the other, health apart.

Handlers read, check who is calling, call a port, and write the answer; what happens in between belongs to the flows.
Nothing here knows SQL, keys or the law, and no identifier of a person ever stands in a URL.
"""
