"""How an app stands on the engine: places, the wire form, runs, what ends from outside, the index.

An app's engine is equipped by `serving.equip(app)` when it starts to work. What of this needs the
app's own modules finds them late; they import from here.
"""
