//! Links between the pages.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use crate::files::{Files, folder_of, join};

/// One line for each relative link of a page that leads to no file, or to no heading of the page it names.
pub(crate) fn dead_links(files: &Files) -> Vec<String> {
    let pages: BTreeMap<_, _> = files.ending(".md").map(|(path, text)| (path, links_and_anchors(text))).collect();
    let mut lines = Vec::new();
    for (page, (links, _)) in &pages {
        // A colon leads to another place: https:, mailto:.
        for link in links.iter().filter(|link| !link.contains(':')) {
            let (file, heading) = link.split_once('#').map_or((&**link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { (*page).to_owned() } else { join(folder_of(page), file) };
            let anchors = pages.get(target.as_str()).map(|(_, anchors)| anchors);
            if !files.exists(&target) {
                lines.push(format!("{page}: link to {link}: there is no such file"));
            } else if anchors.zip(heading).is_some_and(|(anchors, heading)| !anchors.contains(heading)) {
                lines.push(format!("{page}: link to {link}: there is no such heading"));
            }
        }
    }
    lines
}

/// What a page links to, and the anchors of its headings.
fn links_and_anchors(text: &str) -> (Vec<String>, BTreeSet<String>) {
    let (mut links, mut anchors, mut title) = (Vec::new(), BTreeSet::new(), String::new());
    for event in Parser::new(text) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => links.push(dest_url.to_string()),
            Event::Start(Tag::Heading { .. }) => title.clear(),
            Event::Text(text) | Event::Code(text) => title.push_str(&text),
            Event::End(TagEnd::Heading(_)) => {
                // The anchor that GitHub gives to a heading.
                let dashed = title.trim().to_lowercase().replace(' ', "-");
                anchors.insert(dashed.replace(|c: char| !c.is_alphanumeric() && c != '-' && c != '_', ""));
            }
            _ => {}
        }
    }
    (links, anchors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Vec<String> {
        let other = "# Top\n## The `open` tail, σ\n```sh\n# not a heading\n```\n";
        dead_links(&Files::from([("docs/a.md", text), ("docs/b.md", other), ("x/c.png", ""), ("README.md", "")]))
    }

    #[test]
    fn links_lead_to_files_folders_and_headings() {
        let text = "[a](b.md) ![b](../x/c.png \"title\") [c](../x) [d](https://x.y/z#w) [e](#here) [f](b.md#top)
            [g](b.md#the-open-tail-σ) [h](../README.md)\n# Here\n`[i](gone.md)` [`j`](b.md)\n```\n[k](gone.md)\n```";
        assert_eq!(check(text), [""; 0]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (text, problem) in [
            ("[a](gone.md)", "docs/a.md: link to gone.md: there is no such file"),
            ("[a\nb](../../b.md)", "docs/a.md: link to ../../b.md: there is no such file"),
            ("[a](b.md#bottom)", "docs/a.md: link to b.md#bottom: there is no such heading"),
            ("[a](b.md#not-a-heading)", "docs/a.md: link to b.md#not-a-heading: there is no such heading"),
            ("[a](#top)", "docs/a.md: link to #top: there is no such heading"),
        ] {
            assert_eq!(check(text), [problem]);
        }
    }
}
