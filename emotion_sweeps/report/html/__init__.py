"""The board as one self-contained page, leaderboard.html: works from disk, without a network, on a phone, on paper.

`page` puts it together: `table` makes the rows; `effects`, `curves`, `parallel`, `slices` and `winner` make plotly
figures; `embed` packs plotly.js and the figures' data so that a strict Content-Security-Policy lets them run and
nothing else. The look is in `page.css`, what moves in `table.js` and `plots.js`.
"""
