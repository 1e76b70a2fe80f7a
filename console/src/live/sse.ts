// Reads a stream of server-sent events as its text arrives, comments included: they are the
// heartbeat, and what a browser's own EventSource hides.

export interface ServerEvent {
  name: string;
  data: string;
}

export class SseParser {
  /** Number of the last event, to come back with. */
  lastId: string | undefined;
  #rest = '';
  #name = '';
  #data: string[] = [];

  /** The events that are complete with this piece of text. */
  feed(text: string): ServerEvent[] {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? '';
    return lines.flatMap((line) => this.#line(line));
  }

  #line(line: string): ServerEvent[] {
    if (line === '') return this.#end();
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.#name = value;
    if (field === 'data') this.#data.push(value);
    if (field === 'id' && !value.includes('\0')) this.lastId = value;
    return [];
  }

  #end(): ServerEvent[] {
    const event = { name: this.#name === '' ? 'message' : this.#name, data: this.#data.join('\n') };
    const whole = this.#data.length > 0;
    this.#name = '';
    this.#data = [];
    return whole ? [event] : [];
  }
}
