//! docs/answers.md, made from the table of questions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::{Form, Preset, Question, Section, all, keys};
use crate::deploy::answers::{Former, former_keys};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/answers.md");

const HEAD: &str = "# Answer files

<!-- Made from the table of questions by `UPDATE_DOCS=1 cargo test -p hosted-engine-cli --lib reference`. -->

`hosted-engine --deploy` asks for what no answer file says. With answers for everything it needs no terminal:

    hosted-engine --deploy --config-append=answers.conf --config-append=secrets.conf --yes

`--generate-answer=FILE` asks the questions, writes such a file, and deploys nothing.

```ini
# a comment
[environment:default]
OVEHOSTED_STORAGE/domainType=str:nfs
OVEHOSTED_STORAGE/storageDomainConnection=str:nas.example.com:/exports/he
OVEHOSTED_VM/vmMemSizeMB=int:8192
OVEHOSTED_NETWORK/openFirewall=bool:False
OVEHOSTED_VM/rootSshPubkey=multi-str:ssh-ed25519 AAAA… one
    ssh-ed25519 AAAA… two
```

- The form is otopi's; files of the existing tool are read as they are. The types are `str`, `int`, `bool` (the first
  letter counts: t, y, 1 or f, n, 0), `none` (as good as no answer) and `multi-str` (one line each, the further ones
  indented). A `%` is written twice. A comment is a line that begins with `#` or `;`.
- Of several files later ones win. The sections `[environment:init]`, `[environment:override]` and
  `[environment:enforce]` win over `[environment:default]`, in this order. Other sections, and keys that do not begin
  with `OVEHOSTED_`, belong to other tools and mean nothing.
- A line that cannot be read is an error with its file and line. An unknown key is told, with the nearest known one.
- Without a terminal a question that nobody answered takes its default. One that has none is missing, and all that is
  missing or wrong is reported at once.
- Passwords are taken only from files that nobody but their owner may read (`chmod 600`), and are never written into
  one, nor into the log, nor into the journal.
- A key marked with an asterisk is not asked for on a terminal as long as it has a default: only answer files set it.
";

fn form(question: &Question) -> String {
    match question.form {
        Form::Word(words) => format!("`str`: {}", words.join(", ")),
        Form::Text => "`str`".to_owned(),
        Form::Integer(least, most) => format!("`int`: {least} to {most}"),
        Form::Bool => "`bool`".to_owned(),
        Form::Lines => "`str` or `multi-str`".to_owned(),
        Form::Secret => "`str`, a password".to_owned(),
    }
}

fn preset(question: &Question) -> String {
    match (question.preset, question.if_empty) {
        (Preset::Nothing, None) => "**must be given**".to_owned(),
        (Preset::Nothing | Preset::Fixed(""), Some(words)) => format!("({words})"),
        (Preset::Fixed(text), _) => format!("`{text}`"),
        (Preset::From(words, _), _) => words.to_owned(),
    }
}

fn reference() -> String {
    let mut text = HEAD.to_owned();
    for section in [Section::Storage, Section::Network, Section::Vm, Section::Engine] {
        writeln!(text, "\n## {section}\n\n| key | what | asked | default |\n| --- | --- | --- | --- |")
            .unwrap();
        for question in all().filter(|question| question.section == section) {
            let star = if question.is_quiet { " \\*" } else { "" };
            writeln!(
                text,
                "| `{}`{star} | **{}**, {}. {} | {} | {} |",
                question.key,
                question.label,
                form(question),
                question.explanation,
                question.when.words,
                preset(question)
            )
            .unwrap();
        }
    }
    write!(
        text,
        "\n## Confirmations\n\n| key | what |\n| --- | --- |\n\
         | `{}` | `bool`: yes confirms the preview, as `--yes` does |\n\
         | `{}` | `bool`: yes goes on outside screen and tmux without a question |\n",
        keys::CONFIRM,
        keys::SCREEN_PROCEED
    )
    .unwrap();
    text += "\n## Keys of former releases\n\n| key | what becomes of it |\n| --- | --- |\n";
    let mut unused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, former) in former_keys() {
        let becomes = match former {
            Former::Renamed(present) => format!("taken for `{present}`"),
            Former::Converted(present) => format!("says something about `{present}`"),
            Former::Elsewhere(advice) => format!("no effect, with a warning: {advice}"),
            Former::Unused => {
                let (part, name) = key.split_once('/').unwrap();
                unused.entry(part.to_owned()).or_default().push(format!("`{name}`"));
                continue;
            }
        };
        writeln!(text, "| `{key}` | {becomes} |").unwrap();
    }
    text += "\nThese have no effect: what they say is drawn anew, found out, or of no matter here.\n\n";
    for (part, names) in unused {
        writeln!(text, "- `{part}/`: {}", names.join(", ")).unwrap();
    }
    text
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(FILE);
    let text = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let present = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        present == text,
        "docs/answers.md is stale: UPDATE_DOCS=1 cargo test -p hosted-engine-cli --lib reference"
    );
}
