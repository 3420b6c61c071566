"""zeromq.js as it comes from npm: what node/peer.mjs asks of the broker."""
import pathlib
import subprocess

import pytest

from peers import ROOT

MISSING = not (ROOT / "node_modules/zeromq").exists()


@pytest.mark.skipif(MISSING, reason="no zeromq for node here: npm ci")
def test_zeromq_js(broker):
    script = pathlib.Path(__file__).parent / "node/peer.mjs"
    ran = subprocess.run(
        ["node", script, broker.door], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (0, "all is well\n"), ran.stderr
