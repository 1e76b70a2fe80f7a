// A browser that looks at the console as a person would, and at what it does wrong.
import { readFileSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// As root Chromium has no sandbox, and without the others it dials out for itself.
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** How long a page may take to show what is waited for: generous, for a busy machine. */
export const PATIENCE_MS = 60_000;

export class Visitor {
  wrong = [];
  pictures = process.env.CULVERT_SCREENSHOTS;

  static async open(base) {
    const visitor = new Visitor();
    visitor.browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: FLAGS });
    visitor.context = await visitor.browser.newContext({
      baseURL: base,
      ignoreHTTPSErrors: true,
      reducedMotion: 'reduce',
      viewport: { width: 1280, height: 860 },
    });
    visitor.context.setDefaultTimeout(PATIENCE_MS);
    visitor.page = await visitor.context.newPage();
    visitor.watch(visitor.page);
    return visitor;
  }

  /** Notes what a page says of itself: breaches of its policy, and errors. */
  watch(page) {
    page.on('pageerror', (error) => this.wrong.push(`error on ${page.url()}: ${error.message}`));
    page.on('console', (message) => {
      const text = message.text();
      const policy = text.includes('Content Security Policy');
      if (policy || (message.type() === 'error' && !text.startsWith('Failed to load resource'))) {
        this.wrong.push(`console of ${page.url()}: ${text}`);
      }
    });
  }

  /** Looks at the screen in both themes: axe, and a picture when they are wanted. */
  async look(name) {
    for (const colorScheme of ['light', 'dark']) {
      await this.page.emulateMedia({ colorScheme });
      await this.picture(`${name}-${colorScheme}`);
      await this.page.evaluate(axeSource);
      const { violations } = await this.page.evaluate(() => globalThis.axe.run());
      for (const one of violations) {
        const where = one.nodes.slice(0, 3).map((node) => `${node.target.join(' ')} ${node.failureSummary}`);
        this.wrong.push(`axe, ${name} ${colorScheme}: ${one.id}: ${where.join('; ')}`);
      }
    }
  }

  /** The same on a telephone: nothing may be wider than the screen. */
  async narrow(name) {
    await this.page.setViewportSize({ width: 360, height: 740 });
    await this.picture(`${name}-narrow`);
    const over = await this.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (over > 0) this.wrong.push(`${name} is ${over} px too wide on a screen of 360`);
    await this.page.getByRole('heading', { level: 1 }).click({ trial: true });
    await this.page.setViewportSize({ width: 1280, height: 860 });
  }

  async picture(name) {
    if (this.pictures === undefined) return;
    mkdirSync(this.pictures, { recursive: true });
    await this.page.screenshot({ path: join(this.pictures, `${name}.png`), fullPage: true });
  }

  async close() {
    await this.browser.close();
  }
}
