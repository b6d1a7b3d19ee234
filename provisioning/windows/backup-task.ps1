<#
.SYNOPSIS
Registers (or, with -Remove, unregisters) the daily backup as a scheduled task.

.DESCRIPTION
Run as administrator. The task runs as SYSTEM, which may read the files of Grafana and Prometheus; the folder of the backups is
closed to everybody but SYSTEM and administrators; the bridge's account (-Reader) may see how old they are. Secrets are taken from where
the bridge's service has them: a file of NAME=value lines, closed to everybody else.

.EXAMPLE
.\backup-task.ps1 -Backups D:\Backups\Bridge -Reader 'NT SERVICE\TDSBridge'
#>
[CmdletBinding(SupportsShouldProcess)]
param(
    [string] $Name = 'Bridge backup',
    # What winsvc\install.ps1 makes, where it makes it.
    [string] $Python = (Join-Path (Split-Path -Parent (Split-Path -Parent $PSScriptRoot)) '.venv\Scripts\python.exe'),
    [string] $Config = "$env:ProgramData\TDS\bridge\bridge.yaml",
    [string] $Environment = "$env:ProgramData\TDS\bridge\secrets.env",
    [string] $Backups = "$env:ProgramData\TDS\backups",
    [string] $Reader = '',
    [string] $At = '02:30',
    [ValidateRange(1, 10000)] [int] $Keep = 14,
    [switch] $Remove
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

if ($Remove) {
    Unregister-ScheduledTask -TaskName $Name -Confirm:$false
    return
}
foreach ($file in $Python, $Config) {
    if (-not (Test-Path -LiteralPath $file -PathType Leaf)) { throw "$file is not there" }
}

New-Item -ItemType Directory -Force -Path $Backups | Out-Null
# S-1-5-18 is SYSTEM, S-1-5-32-544 the administrators, in every language of Windows.
& icacls.exe $Backups /inheritance:r /grant '*S-1-5-18:(OI)(CI)F' '*S-1-5-32-544:(OI)(CI)F' | Out-Null
if ($LASTEXITCODE -ne 0) { throw "the rights on $Backups could not be set" }
if ($Reader) {
    # It lists the folders, whose names say how old they are, and reads the last results; no other file is opened to it.
    & icacls.exe $Backups /grant "${Reader}:(CI)(RX)" "${Reader}:(OI)(NP)(R)" | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "$Reader could not be given the right to read $Backups" }
}

# The file's lines into the environment, then the two commands; the task's result is the worse of the two.
$script = @"
if (Test-Path -LiteralPath '$Environment') {
    Get-Content -LiteralPath '$Environment' | Where-Object { `$_ -match '^\s*([A-Za-z_]\w*)=(.*)$' } |
        ForEach-Object { [Environment]::SetEnvironmentVariable(`$Matches[1], `$Matches[2]) }
}
# Relative paths in the configuration start from its folder, as in the service.
Set-Location -LiteralPath '$(Split-Path -Parent $Config)'
`$env:BRIDGE_BACKUP__FOLDER = '$Backups'
& '$Python' -m app backup all --keep $Keep --config '$Config'
`$failed = `$LASTEXITCODE
& '$Python' -m app backup verify --config '$Config'
exit [Math]::Max(`$failed, `$LASTEXITCODE)
"@
$encoded = [Convert]::ToBase64String([Text.Encoding]::Unicode.GetBytes($script))

$action = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument "-NoProfile -NonInteractive -EncodedCommand $encoded"
$trigger = New-ScheduledTaskTrigger -Daily -At $At
$principal = New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -LogonType ServiceAccount -RunLevel Highest
# StartWhenAvailable: a machine that was off at that time makes up for it.
$settings = New-ScheduledTaskSettingsSet -StartWhenAvailable -MultipleInstances IgnoreNew `
    -ExecutionTimeLimit (New-TimeSpan -Hours 12) -RestartCount 2 -RestartInterval (New-TimeSpan -Minutes 30)

if ($PSCmdlet.ShouldProcess($Name, 'register the scheduled task')) {
    Register-ScheduledTask -TaskName $Name -Action $action -Trigger $trigger -Principal $principal -Settings $settings -Force | Out-Null
    Write-Output "$Name runs daily at $At; try it now with: Start-ScheduledTask -TaskName '$Name'"
}
