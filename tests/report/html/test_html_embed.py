from __future__ import annotations

import base64
import gzip
import hashlib
import json

from emotion_sweeps.report.html import embed
from emotion_sweeps.report.html.figures import calm_range, shown, spread_over

EVIL = "</script><script>alert(1)</script><!-- &amp; \u2028 \u2029 😀 =cmd"


def test_json_in_a_script_element_neither_ends_nor_opens_anything() -> None:
    written = embed.inert_json({EVIL: [1.5, None, EVIL]})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {EVIL: [1.5, None, EVIL]}


def test_the_packed_bundle_is_plotly_js_and_much_smaller() -> None:
    packed = embed.packed_plotly_js()
    assert gzip.decompress(base64.b64decode(packed)).decode("utf-8") == embed.plotly_js()
    assert "plotly.js v" in embed.plotly_js()[:200]
    assert len(packed) < 0.5 * len(embed.plotly_js())


def test_the_policy_allows_the_given_scripts_and_no_network() -> None:
    policy = dict(part.strip().split(" ", 1) for part in embed.content_security_policy(["a()", "ü()"]).split(";"))
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in ("a()", "ü()")]
    assert policy["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "connect-src" not in policy and "unsafe-eval" not in str(policy)


def test_foreign_text_is_no_markup_for_plotly() -> None:
    assert shown('<a href="x">b</a> & $x$\nnext') == '&lt;a href="x"&gt;b&lt;/a&gt; &amp; &#36;x&#36; next'
    assert len(shown("x" * 500)) == 60


def test_indices_are_spread_evenly_with_both_ends() -> None:
    assert spread_over(3, 10) == [0, 1, 2]
    assert spread_over(101, 5) == [0, 25, 50, 75, 100]
    assert spread_over(0, 5) == [] and spread_over(9, 1) == [0]


def test_only_far_outliers_leave_the_axis() -> None:
    near = [0.30 + 0.01 * i for i in range(20)]
    assert calm_range(near) == (None, 0)
    limits, outside = calm_range([*near, 5.0, 9.0])
    assert outside == 2 and limits is not None and limits[0] < 0.30 and 0.49 < limits[1] < 1
    assert calm_range([0.3, 5.0]) == (None, 0), "two values have no outlier"
