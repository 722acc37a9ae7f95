"""Links of the second kind: IKEv2/IPsec through strongSwan's VICI, for bodies that keep an existing device (機器).

``model`` the words, ``plan`` what to do (pure), ``messages`` VICI's form of it, ``vici`` how it is done, ``charon`` the
daemon itself, ``kind`` the port by which the gateway's controller drives it all, ``sheet`` what the engineer at the
municipality is handed.
"""
