//! What docs/tokenbucket.md shows, taken out of it, so that it stays true.

use std::fs;

use testbed::step;

fn read(path: &str) -> String {
    step(path, fs::read_to_string(path))
}

/// The blocks of code in a section of the document, in their order.
pub fn blocks(section: &str) -> Vec<String> {
    testbed::document::blocks("docs/tokenbucket.md", section)
}

/// The machine of the exercise: its solution, put into tokenbucket.toml as the text says.
pub fn exercise() -> String {
    let [_, solution, _] = &blocks("Exercise")[..] else {
        panic!("the exercise is a command, the solution and its table");
    };
    let mut machine = read("src/tokenbucket/machines/tokenbucket.toml");
    let last_row = step(
        "find the last row",
        machine.rfind("[[row]]").ok_or("no row"),
    );
    machine.truncate(last_row);
    let (tables, rows) = step("find rows", solution.split_once("[[row]]").ok_or("no row"));
    for table in tables
        .split("\n[")
        .map(|table| table.trim_start_matches('['))
    {
        let (name, lines) = step(table, table.split_once("]\n").ok_or("no table"));
        let name = format!("[{name}]\n");
        assert_eq!(machine.matches(&name).count(), 1, "{name} in {machine}");
        machine = machine.replace(&name, &format!("{name}{lines}\n"));
    }
    format!("{machine}[[row]]{rows}")
}
