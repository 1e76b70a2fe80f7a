// Writes words as a line for a POSIX shell.

/** A command line; words that a shell would not take as they are get quotes. */
export function shellLine(words: string[]): string {
  return words.map(quoted).join(' ');
}

function quoted(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
