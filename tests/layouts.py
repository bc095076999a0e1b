"""What a layout says of each prompt, for tests."""

from clipadapt.backbone.rows import Layout


def rows_of_prompts(layout: Layout) -> list[list[int]]:
    """Rows of each prompt's tokens: the prefix, and its own up to the one at which it is read."""
    firsts, row = [], layout.prefix
    for stack in layout.stacks:
        firsts += range(row, row + stack.count * stack.length, stack.length)
        row += stack.count * stack.length
    assert row == len(layout.ids)
    prefix = [*range(layout.prefix)]
    places = layout.order.tolist()
    return [[*prefix, *range(firsts[place], int(end) + 1)] for place, end in zip(places, layout.ends, strict=True)]
