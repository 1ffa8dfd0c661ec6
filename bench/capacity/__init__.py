"""How many machines a deployment needs: measured figures, a model, and a simulation.

`figures` reads what the harness has measured, `model` is the arithmetic, `simulation`
plays messages through workers and a broker, to see that the arithmetic holds.
`command` is what `python -m bench capacity` does, `quantities` reads its numbers,
`text` is what it prints, and `page` puts that into the page that explains it.
"""
