from ops.demo.chat import events


def test_events_are_read_with_their_names_and_data() -> None:
    lines = [
        "id: 1",
        "event: tool",
        'data: {"phase": "start"}',
        "",
        "event: token",
        'data: {"text": "a: b"}',
        "",
    ]
    assert list(events(iter(lines))) == [
        ("tool", {"phase": "start"}),
        ("token", {"text": "a: b"}),
    ]


def test_comments_that_keep_a_connection_alive_are_passed_over() -> None:
    assert list(events(iter([": waiting", "", ": waiting", ""]))) == []


def test_data_over_several_lines_is_one_event() -> None:
    assert list(events(iter(['data: {"a":', "data: 1}", ""]))) == [("message", {"a": 1})]
