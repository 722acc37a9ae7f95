"""Drills (切替訓練): what is broken on purpose, in operators' words, and what an observer from outside finds.

A drill (``scenario``) is a file of sentences (``vocabulary``). The runner (``runner``) carries them out on an
installation (``ports``; ``lab`` is the one on this machine), while clients (``probing``) ask and register through the
public API of both exchanges and never repeat a request. Each client keeps a journal on disk. The checkers
(``checkers``) read the journals and then what the parties hold afterwards; they share no code with the platform and do
not ask it for its opinion. The report (``report``, ``page``) is signed and kept (``history``).
"""
