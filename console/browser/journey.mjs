// From nothing to a connected cluster, in a real browser, and a look at every screen.
//   journey.mjs ADDRESS FOLDER
// FOLDER has the one-time code in `code`; the journey writes the join token to `token` there, and
// whoever runs it starts an agent with that.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Visitor } from './browser.mjs';

const [address, folder] = process.argv.slice(2);
const visitor = await Visitor.open(`https://${address}`);
const { page } = visitor;
const heading = (name) => page.getByRole('heading', { level: 1, name });

async function signIn() {
  // A deep link of somebody who is not signed in: they come back to it.
  await page.goto('/clusters?state=pending');
  await page.getByLabel('One-time code').waitFor();
  await visitor.look('sign-in');
  await page.getByLabel('One-time code').fill('AAAA-AAAA-AAAA');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText(/request req_/).waitFor();
  await page.getByLabel('One-time code').fill(readFileSync(join(folder, 'code'), 'utf8'));
  await page.getByRole('button', { name: 'Sign in' }).click();
  await heading('Clusters').waitFor();
  await page.getByText('No clusters match this filter').waitFor();
  await page.getByRole('button', { name: 'Show all' }).click();
  await page.getByText('No cluster yet').waitFor();
  await page.locator('[data-live=true]').waitFor();
  await visitor.look('clusters-empty');
}

async function connect() {
  await page.getByRole('link', { name: 'Connect a cluster' }).first().click();
  await page.getByLabel('Name').fill('factory-7');
  await page.getByLabel('Labels').fill('site=graz, tier=1');
  await page.getByText('culvert cluster create factory-7 --label site=graz --label tier=1').waitFor();
  await visitor.look('connect-name');
  await page.getByRole('button', { name: 'Go on' }).click();
  await heading('Connect factory-7').waitFor();
  await page.getByRole('button', { name: 'Show the command' }).click();
  const command = await page.locator('.command').textContent();
  await visitor.look('connect-command');
  const token = /token: (cvj1\S+)/.exec(command ?? '')?.[1];
  if (token === undefined) throw new Error(`no token in ${command}`);
  writeFileSync(join(folder, 'token.part'), token);
  renameSync(join(folder, 'token.part'), join(folder, 'token'));
  for (const stage of ['reached', 'tls', 'token', 'identity', 'tunnel', 'capabilities']) {
    await page.locator(`[data-stage=${stage}][data-state=on]`).waitFor();
  }
  await page.getByText('The cluster is connected').waitFor();
  await visitor.look('connect-done');
}

async function lookAround() {
  await page.getByRole('link', { name: 'To the cluster' }).click();
  await heading('factory-7').waitFor();
  await page.getByText('Kubernetes', { exact: true }).waitFor();
  await visitor.look('cluster');
  await visitor.narrow('cluster');
  await page.getByRole('link', { name: 'Clusters', exact: true }).click();
  await page.getByRole('cell', { name: 'Connected', exact: true }).waitFor();
  await visitor.look('clusters');
  await visitor.narrow('clusters');
  await page.getByRole('link', { name: 'Home', exact: true }).click();
  await page.getByText('Nothing. All clusters are connected').waitFor();
  await visitor.look('home');
  await page.getByRole('link', { name: 'Databases', exact: true }).click();
  await page.getByText('No database yet').waitFor();
  await visitor.look('databases-empty');
  await page.getByRole('link', { name: 'Operations', exact: true }).click();
  await page.getByText('Nothing was done yet').waitFor();
  await visitor.look('operations-empty');
}

async function create() {
  await page.getByRole('link', { name: 'Databases', exact: true }).click();
  await page.getByRole('link', { name: 'Create a database' }).first().click();
  await page.getByLabel('Name').fill('orders');
  await page.getByPlaceholder('A connected cluster').click();
  await page.getByRole('option', { name: 'factory-7' }).click();
  await page.getByText('The cluster has 17.12').waitFor();
  await page.getByText('What the project uses for it').waitFor();
  await visitor.look('create-plan');
  // What cannot be is said before it is asked for, and what is typed stays.
  await page.getByLabel('Memory').fill('64Mi');
  await page.getByRole('alert').first().waitFor();
  await visitor.look('create-refused');
  await page.getByLabel('Memory').fill('1Gi');
  await page.getByRole('alert').waitFor({ state: 'detached' });
  await page.getByRole('tab', { name: 'YAML' }).click();
  await page.getByText('kind: DataService').waitFor();
  await page.getByRole('button', { name: 'Create', exact: true }).click();
  await heading('Create orders').waitFor();
  await page.locator('[data-step][data-state=running]').waitFor();
  await visitor.look('operation');
  await visitor.narrow('operation');
  await page.getByRole('link', { name: 'orders', exact: true }).click();
  await heading('orders').waitFor();
  await page.getByText('It has no backups').waitFor();
  await visitor.look('database');
  await visitor.narrow('database');
  await page.getByRole('link', { name: 'Databases', exact: true }).click();
  await page.getByRole('link', { name: 'orders' }).waitFor();
  await visitor.look('databases');
  await page.getByRole('link', { name: 'Operations', exact: true }).click();
  await page.getByRole('link', { name: 'Create orders' }).waitFor();
  await visitor.look('operations');
}

async function cancel() {
  await page.getByRole('link', { name: 'Create orders' }).click();
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page
    .getByText(/^(Cancelling|Cancelled)$/)
    .first()
    .waitFor();
  await visitor.look('operation-cancelled');
}

async function lockIt() {
  await page.goto('/clusters/factory-7');
  await page.getByRole('button', { name: 'Lock' }).click();
  await page.getByLabel('What those who are refused are told').fill("it's incident 4711");
  await page.getByText(`culvert cluster lock factory-7 --message 'it'\\''s incident 4711'`).waitFor();
  await visitor.look('lock');
  await page.getByRole('dialog').getByRole('button', { name: 'Lock', exact: true }).click();
  await page.getByText("Locked: it's incident 4711", { exact: true }).waitFor();
  await visitor.look('cluster-locked');
  // A second tab follows by the stream of the first one.
  const second = await visitor.context.newPage();
  visitor.watch(second);
  await second.goto('/clusters');
  await second.getByRole('cell', { name: 'Locked' }).waitFor();
  await second.locator('[data-live=true]').waitFor();
  await page.getByRole('button', { name: 'Unlock' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Unlock', exact: true }).click();
  await second.getByRole('cell', { name: 'Locked' }).waitFor({ state: 'detached' });
  await second.close();
}

async function keyboard() {
  await page.goto('/');
  await heading('Home').waitFor();
  await page.keyboard.press('/');
  await page.getByRole('dialog').getByPlaceholder('Go to…').fill('factory');
  await visitor.look('palette');
  await page.keyboard.press('Enter');
  await heading('factory-7').waitFor();
}

try {
  for (const part of [signIn, connect, lookAround, create, cancel, lockIt, keyboard]) {
    await part();
    console.log(`passed: ${part.name}`);
  }
} catch (error) {
  await visitor.picture('failed');
  visitor.wrong.push(`${error.message}\nat ${page.url()}:\n${await page.locator('body').innerText()}`);
}
await visitor.close();
for (const one of visitor.wrong) console.error(`wrong: ${one}`);
process.exitCode = visitor.wrong.length > 0 ? 1 : 0;
