//! A chat on a terminal.

use std::io;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::session::{Session, tell};
use crate::chat::{Message, Role};

const HELP: &str = "/clear begins anew, /bye leaves (Ctrl-D does too), Ctrl-C stops an answer; \
    three quotes (\"\"\") begin and end a text of several lines";
/// Begins and ends a text of several lines.
const QUOTES: &str = "\"\"\"";

/// What the person typed.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Text(String),
    Clear,
    Help,
    Unknown(String),
    Nothing,
    Leave,
}

/// Asks and answers until the person leaves.
pub(super) async fn chat(mut session: Session, system: Option<&str>) -> anyhow::Result<()> {
    tell(HELP);
    let mut editor = DefaultEditor::new()?;
    loop {
        // Waiting for a person blocks its thread.
        let (back, input) = tokio::task::spawn_blocking(move || {
            let input = read(&mut editor);
            (editor, input)
        })
        .await?;
        editor = back;
        match input? {
            Input::Leave => return Ok(()),
            Input::Nothing => {}
            Input::Help => tell(HELP),
            Input::Unknown(command) => tell(&format!("there is no {command}: {HELP}")),
            Input::Clear => {
                let system = system.map(|text| Message::text(Role::System, text));
                session.request.messages = system.into_iter().collect();
            }
            Input::Text(text) => {
                session.say(text);
                if let Err(error) = session.answer(&mut io::stdout()).await {
                    // The question stays out of the conversation, so that it can be asked again.
                    session.request.messages.pop();
                    tell(&format!("error: {error:#}"));
                }
            }
        }
    }
}

/// Reads one input: a line, or several between quotes.
fn read(editor: &mut DefaultEditor) -> anyhow::Result<Input> {
    let mut lines = |prompt: &str| match editor.readline(prompt) {
        Ok(line) => {
            // A history that does not grow is no reason to end.
            let _ = editor.add_history_entry(&line);
            Ok(Some(line))
        }
        Err(ReadlineError::Interrupted) => Ok(Some(String::new())),
        Err(ReadlineError::Eof) => Ok(None),
        Err(error) => Err(error.into()),
    };
    input(&mut lines)
}

fn input(
    next_line: &mut dyn FnMut(&str) -> anyhow::Result<Option<String>>,
) -> anyhow::Result<Input> {
    let Some(line) = next_line(">>> ")? else {
        return Ok(Input::Leave);
    };
    let line = line.trim();
    if let Some(first) = line.strip_prefix(QUOTES) {
        let mut text = first.to_owned();
        while !text.trim_end().ends_with(QUOTES) {
            let Some(line) = next_line("... ")? else {
                return Ok(Input::Leave);
            };
            text.push('\n');
            text.push_str(&line);
        }
        let text = text.trim_end().strip_suffix(QUOTES).unwrap_or_default();
        return Ok(Input::Text(text.trim().to_owned()));
    }
    Ok(match line {
        "" => Input::Nothing,
        "/bye" | "/exit" | "/quit" => Input::Leave,
        "/clear" => Input::Clear,
        "/help" | "/?" => Input::Help,
        command if command.starts_with('/') => Input::Unknown(command.to_owned()),
        text => Input::Text(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(lines: &[&str]) -> Vec<Input> {
        let mut lines = lines.iter();
        let mut next = |_: &str| Ok(lines.next().map(ToString::to_string));
        let mut all = Vec::new();
        loop {
            let one = input(&mut next).unwrap();
            let is_last = one == Input::Leave;
            all.push(one);
            if is_last {
                return all;
            }
        }
    }

    #[test]
    fn lines_commands_and_texts_of_several_lines() {
        let text = |text: &str| Input::Text(text.to_owned());
        let lines = [
            "hello",
            "",
            " /clear ",
            "\"\"\"a",
            " b",
            "c\"\"\"",
            "\"\"\"one\"\"\"",
            "/x",
            "/?",
        ];
        let expected = vec![
            text("hello"),
            Input::Nothing,
            Input::Clear,
            text("a\n b\nc"),
            text("one"),
            Input::Unknown("/x".to_owned()),
            Input::Help,
            Input::Leave,
        ];
        assert_eq!(inputs(&lines), expected);
        assert_eq!(inputs(&["/bye", "more"]), [Input::Leave]);
        assert_eq!(inputs(&["\"\"\"never", "ends"]), [Input::Leave]);
    }
}
